"""What several backends are built from, for authors of backends too."""
