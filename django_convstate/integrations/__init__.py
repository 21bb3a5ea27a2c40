"""For other libraries, a module each, imported by nobody but its user."""
