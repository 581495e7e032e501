"""Reading tables: any encoding, separator and type to text cells, with the words that mean unknown."""
