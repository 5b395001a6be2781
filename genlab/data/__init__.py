"""From bytes on disk to batches: sources, one uint8 store, the batch stream, binarisation.

Public: :class:`genlab.data.dataset.Dataset`, :class:`genlab.data.store.Store` and
:func:`genlab.data.preparation.prepared`, of which a data set of your own is made.
"""
