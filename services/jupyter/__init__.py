"""jupyter: JupyterLab beside the data, with notebooks that show every way of feeding."""
