"""One module for each section of the page; each gives its HTML from the context."""
