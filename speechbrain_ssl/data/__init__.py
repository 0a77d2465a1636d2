"""From files on disk to augmented crops: everything before the features.

The data loader (``loaders``) reads utterances of a ``manifest`` in the order of
``sampling`` and cuts crops (``dataset``, ``crops``, ``audio``); for validation
that is done by ``halves``. Crops are augmented on the training device
(``augmentation``, ``banks``). All random numbers come from ``draws``, so that a
resumed run sees the same data.
"""
