"""Reports on what a model does: plots as SVG, pages as one self-contained HTML file. Standard library only."""
