"""The relay workers: processes that forward beside the Intermediate, on its port."""
