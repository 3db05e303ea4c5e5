"""A URLconf that fails as it is loaded."""

raise RuntimeError("This URLconf fails, as it is meant to.")
