"""The commands of ``python -m bench``: one module each, with ``add_arguments(parser)`` and ``main(args) ->
exit code``.
"""
