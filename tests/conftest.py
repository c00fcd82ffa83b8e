"""Its place is its purpose: pytest puts this folder on the import path, so that tests find the helpers in it."""
