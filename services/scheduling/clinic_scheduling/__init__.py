"""Scheduling owns what is offered, who and what it takes, when they are free, and the appointments."""
