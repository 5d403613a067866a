"""Progress hook of every step that may take long: the one of `cache.progress`."""

from cache.progress import Track as Track
from cache.progress import tracked_step as tracked_step
from cache.progress import untracked as untracked
