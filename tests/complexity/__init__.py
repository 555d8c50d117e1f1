"""Whatever a stranger sends takes time in proportion to its length."""
