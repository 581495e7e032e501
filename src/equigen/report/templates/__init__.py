"""Templates of the page and of the cards (a package so that its files are installed)."""
