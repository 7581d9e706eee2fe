"""Masks, criteria, selection, schedules and masked steps: pure functions over any pytree."""
