"""One config file per reported number, and the schema that reads them."""
