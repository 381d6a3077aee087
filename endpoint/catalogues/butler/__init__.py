"""The catalogue `butler`: a Rubin Butler repository, in which raw images are registered where they lie.

Needs the optional packages ``dbb-buffer-managers[butler]``. Only `catalogue` can be imported without
them, and imports none of them itself.
"""
