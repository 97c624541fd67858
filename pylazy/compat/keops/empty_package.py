"""A package of pykeops that holds modules and no names."""
