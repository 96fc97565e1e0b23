"""What self-contained HTML pages are made of: style, plots, and bytes as text. Standard library only."""
