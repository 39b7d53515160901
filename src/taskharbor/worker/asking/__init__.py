"""What to ask the store for next, and of which queues.

whole      without reserved slots: as many as fit, in order of priority over all queues, or in quotas by weight
apart      with reserved slots: the shared ones as above, then those of each queue that had no part in it
empties    which queues came back empty a moment ago, and leave their share to the others
"""

from taskharbor.worker.asking.choosing import asking_for
from taskharbor.worker.asking.words import Ask, Asking

__all__ = ["Ask", "Asking", "asking_for"]
