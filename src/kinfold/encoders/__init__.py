"""Networks that turn images or vectors into embeddings, their weights, and their input."""

from kinfold.encoders import augmentation as augmentation
from kinfold.encoders.networks import application as application
from kinfold.encoders.networks import plain as plain
from kinfold.encoders.networks import raw as raw
from kinfold.encoders.networks import small_convnet as small_convnet
from kinfold.encoders.networks import vector_head as vector_head
