"""One image to one label map."""
