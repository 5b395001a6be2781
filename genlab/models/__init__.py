"""One readable file per paper; each class is the ``_target_`` of a ``model/*.yaml``.

Public: :mod:`genlab.models.base`, the interface of a model of your own; the names of :mod:`genlab.models.draw` and
:mod:`genlab.models.pixelcnn`; :class:`genlab.models.gan.gan.GAN` and its parts;
:class:`genlab.models.classifier.Classifier`.
"""
