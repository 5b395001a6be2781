"""Everything that happens over time: the loop, optimisation, evaluation, checkpoints, logging.

Public: :class:`genlab.training.observer.Observer`, :class:`genlab.training.logger.Logger` and
:mod:`genlab.training.schedules`.
"""
