"""Engines that run instruction streams: the native ones over cffi, and the numpy reference."""
