"""An app of a project, one of whose models points at conversations."""
