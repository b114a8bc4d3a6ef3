"""Problems: the normalised record and where it comes from."""
