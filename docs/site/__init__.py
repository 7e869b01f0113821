"""Build the documentation site from the Markdown files of this repository.

conf        Sphinx's configuration
menu        the order of the pages, and what the API's pages document
docstrings  turn docstrings into reStructuredText
files       show the files of the repository that pages link to
"""
