"""Networks to learn from, whatever format they come in: one file a format."""

from mskd.teachers.base import TEACHERS, Teacher, open_teacher

__all__ = ["TEACHERS", "Teacher", "open_teacher"]
