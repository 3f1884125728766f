"""Networks, one subpackage a version of the architecture."""
