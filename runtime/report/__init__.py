"""Reports of bench results: an HTML page, pictures, tables for files, and tables for the terminal."""
