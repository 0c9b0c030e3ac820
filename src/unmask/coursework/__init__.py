"""The course report that Unmask grew from, reproduced: each of its figures beside ours.

The report has three exercises: gradients in deep networks on MNIST, generators that fool a
classifier of MNIST and of CIFAR-10, and a classifier of faces with and without masks.
"""
