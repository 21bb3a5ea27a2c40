"""The redis backend. Needs the extra: pip install django-convstate[redis]"""
