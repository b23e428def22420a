"""Values as people write them in the configuration file, and back.

Each ``parse_…`` function takes what ``tomllib`` gave and returns the typed value, or raises
:class:`ValueError` whose text names the cause and the cure and is fit for the administrator to read. Each
``show_…`` function is the inverse: what one would write in the file. A :class:`~mtatwist.values.base.Kind`
bundles the two with the words for the documentation.
"""
