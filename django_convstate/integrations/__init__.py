"""For other libraries, a module each. Nothing in this package imports them; their users do."""
