"""jupyter: run JupyterLab next to the data, with notebooks that show every way to read it."""
