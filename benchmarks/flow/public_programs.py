"""Public training programs, by repository and folder, that benchmarks/flow/public.py watches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A program of a public repository.

    Args:
        repository: owner and name, on GitHub.
        folder: in it, where the program is started.
        command: the script or notebook, and its arguments.
        right: kinds of error that are right, since the program has the fault.
    """

    repository: str
    folder: str
    command: str
    right: tuple[str, ...] = ()


# By repository and folder. Sizes are made small where a step would take a second.
_LISTED: dict[str, dict[str, tuple[str, ...]]] = {
    "akamaster/pytorch_resnet_cifar10": {
        ".": ("trainer.py --arch resnet20 -j 1",),
    },
    "bentrevett/pytorch-image-classification": {
        ".": ("3_alexnet.ipynb",),
    },
    "bot66/MNISTDiffusion": {
        ".": ("train_mnist.py --cpu --batch_size 16 --model_base_dim 16",),
    },
    "davda54/sam": {
        "example": ("train.py --width_factor 1 --depth 10",),
    },
    "dsgiitr/d2l-pytorch": {
        "Ch05_Linear_Neural_Networks": (
            "Concise_Implementation_of_Linear_Regression.ipynb",
            "Concise_Implementation_of_Softmax_Regression.ipynb",
        ),
        "Ch06_Multilayer_Perceptrons": (
            "Concise_Implementation_of_Multilayer_Perceptron.ipynb",
            "Dropout.ipynb",
            "Model_Selection_Underfitting_and_Overfitting.ipynb",
        ),
        "Ch09_Modern_Convolutional_Networks": (
            "Batch_Normalization.ipynb",
            "Residual_Networks_(ResNet).ipynb",
        ),
        "Ch10_Recurrent_Neural_Networks": ("Sequence_to_Sequence.ipynb",),
    },
    "eriklindernoren/PyTorch-GAN": {
        "implementations/aae": ("aae.py --n_epochs 1",),
        "implementations/acgan": ("acgan.py --n_epochs 1",),
        "implementations/began": ("began.py --n_epochs 1",),
        "implementations/cgan": ("cgan.py --n_epochs 1",),
        "implementations/dcgan": ("dcgan.py --n_epochs 1",),
        "implementations/ebgan": ("ebgan.py --n_epochs 1",),
        "implementations/gan": ("gan.py --n_epochs 1",),
        "implementations/infogan": ("infogan.py --n_epochs 1",),
        "implementations/lsgan": ("lsgan.py --n_epochs 1",),
        "implementations/relativistic_gan": ("relativistic_gan.py --n_epochs 1",),
        "implementations/sgan": ("sgan.py --n_epochs 1",),
        "implementations/softmax_gan": ("softmax_gan.py --n_epochs 1",),
        "implementations/wgan": ("wgan.py --n_epochs 1",),
        "implementations/wgan_div": ("wgan_div.py --n_epochs 1",),
        "implementations/wgan_gp": ("wgan_gp.py --n_epochs 1",),
    },
    "graykode/nlp-tutorial": {
        "1-1.NNLM": ("NNLM.py",),
        "1-2.Word2Vec": ("Word2Vec-Skipgram(Softmax).py",),
        "2-1.TextCNN": ("TextCNN.py",),
        "3-1.TextRNN": ("TextRNN.py",),
        "3-2.TextLSTM": ("TextLSTM.py",),
        "3-3.Bi-LSTM": ("Bi-LSTM.py",),
        "4-1.Seq2Seq": ("Seq2Seq.py",),
        "4-2.Seq2Seq(Attention)": ("Seq2Seq(Attention).py",),
        "4-3.Bi-LSTM(Attention)": ("Bi-LSTM(Attention).py",),
        "5-1.Transformer": (
            "Transformer(Greedy_decoder).py",
            "Transformer.py",
        ),
        "5-2.BERT": ("BERT.py",),
    },
    "hunkim/PyTorchZeroToAll": {
        ".": (
            "05_linear_regression.py",
            "06_logistic_regression.py",
            "07_diabets_logistic.py",
            "08_2_dataset_loade_logistic.py",
            "09_2_softmax_mnist.py",
            "10_1_cnn_mnist.py",
            "12_2_hello_rnn.py",
            "12_4_hello_rnn_emb.py",
            "13_4_pack_pad.py",
        ),
    },
    "jcjohnson/pytorch-examples": {
        ".": (
            "nn/dynamic_net.py",
            "nn/two_layer_net_nn.py",
            "nn/two_layer_net_module.py",
            "nn/two_layer_net_optim.py",
        ),
    },
    "karpathy/makemore": {
        ".": (
            "makemore.py -i names.txt -o out_transformer --type transformer --device cpu",
            "makemore.py -i names.txt -o out_bigram --type bigram --device cpu",
            "makemore.py -i names.txt -o out_mlp --type mlp --device cpu",
            "makemore.py -i names.txt -o out_rnn --type rnn --device cpu",
            "makemore.py -i names.txt -o out_gru --type gru --device cpu",
            "makemore.py -i names.txt -o out_bow --type bow --device cpu",
        ),
    },
    "karpathy/minGPT": {
        "projects/adder": ("adder.py",),
        ".": ("demo.ipynb",),
    },
    "karpathy/ng-video-lecture": {
        ".": ("bigram.py",),
    },
    "locuslab/fast_adversarial": {
        "MNIST": (
            "train_mnist.py --epochs 1",
            "train_mnist.py --epochs 1 --attack none",
        ),
    },
    "locuslab/TCN": {
        ".": (
            "TCN/adding_problem/add_test.py",
            "TCN/copy_memory/copymem_test.py",
            "TCN/mnist_pixel/pmnist_test.py",
        ),
    },
    "MorvanZhou/PyTorch-Tutorial": {
        "tutorial-contents": (
            "301_regression.py",
            "302_classification.py",
            "304_save_reload.py",
            "306_optimizer.py",
            "401_CNN.py",
            "402_RNN_classifier.py",
            "403_RNN_regressor.py",
            "404_autoencoder.py",
            "406_GAN.py",
            "406_conditional_GAN.py",
            "503_dropout.py",
            "504_batch_normalization.py",
        ),
    },
    "pytorch/examples": {
        "mnist": ("main.py --epochs 1",),
        "mnist_rnn": ("main.py --epochs 1",),
        "mnist_forward_forward": ("main.py --epochs 20",),
        "siamese_network": ("main.py --epochs 1",),
        "vae": ("main.py --epochs 1",),
        "dcgan": ("main.py --dataset fake --niter 1",),
        "regression": ("main.py",),
        "reinforcement_learning": (
            "actor_critic.py",
            "reinforce.py",
        ),
        "imagenet": ("main.py --dummy -a resnet18 -b 16 -j 1 --epochs 1",),
    },
    "pytorch/ignite": {
        "examples/mnist": ("mnist.py",),
        "examples/reinforcement_learning": (
            "actor_critic.py",
            "reinforce.py",
        ),
        "examples/siamese_network": ("siamese_network.py",),
    },
    "rasbt/deeplearning-models": {
        "pytorch_ipynb/mlp": (
            "mlp-basic.ipynb",
            "mlp-batchnorm.ipynb",
            "mlp-dropout.ipynb",
        ),
        "pytorch_ipynb/cnn": (
            "cnn-basic.ipynb",
            "cnn-he-init.ipynb",
            "cnn-allconv.ipynb",
            "cnn-standardized.ipynb",
        ),
        "pytorch_ipynb/autoencoder": (
            "ae-basic.ipynb",
            "ae-cnn-cvae.ipynb",
            "ae-var.ipynb",
            "ae-deconv-nopool.ipynb",
            "ae-cvae.ipynb",
            "ae-conv-var.ipynb",
            "ae-deconv-jaccard.ipynb",
        ),
        "pytorch_ipynb/gan": (
            "gan.ipynb",
            "gan-conv.ipynb",
            "gan-conv-smoothing.ipynb",
            "dc-wgan-1.ipynb",
            "wgan-1.ipynb",
        ),
        "pytorch_ipynb/gnn": (
            "gnn-basic-1.ipynb",
            "gnn-basic-edge-1.ipynb",
        ),
    },
    "rtqichen/torchdiffeq": {
        "examples": (
            "ode_demo.py --niters 200",
            "latent_ode.py --niters 60",
            "odenet_mnist.py --nepochs 1 --batch_size 32",
            "odenet_mnist.py --nepochs 1 --network resnet",
            "learn_physics.py",
            "bouncing_ball.py",
        ),
    },
    "seungeunrho/minimalRL": {
        ".": (
            "REINFORCE.py",
            "acer.py",
            "actor_critic.py",
            "dqn.py",
            "ppo-continuous.py",
            "ppo-lstm.py",
            "ppo.py",
            "sac.py",
            "vtrace.py",
        ),
    },
    "spro/practical-pytorch": {
        "char-rnn-classification": ("train.py",),
        "conditional-char-rnn": ("train.py",),
    },
    "timbmg/VAE-CVAE-MNIST": {
        ".": (
            "train.py --epochs 1",
            "train.py --epochs 1 --conditional",
        ),
    },
    "VincentStimper/normalizing-flows": {
        "examples": (
            "residual.ipynb",
            "real_nvp.ipynb",
            "neural_spline_flow.ipynb",
            "conditional_flow.ipynb",
            "planar.ipynb",
            "vae.ipynb",
            "circular_nsf.ipynb",
            "augmented_flow.ipynb",
            "change_base_distribution.ipynb",
        ),
    },
    "vwxyzjn/cleanrl": {
        ".": (
            "cleanrl/dqn.py --no-cuda",
            "cleanrl/c51.py --no-cuda",
            "cleanrl/ppo.py --no-cuda",
        ),
    },
    "yaodongyu/TRADES": {
        ".": ("train_trades_mnist.py --epochs 1",),
    },
    "yunjey/pytorch-tutorial": {
        "tutorials/01-basics/linear_regression": ("main.py",),
        "tutorials/01-basics/logistic_regression": ("main.py",),
        "tutorials/01-basics/feedforward_neural_network": ("main.py",),
        "tutorials/02-intermediate/convolutional_neural_network": ("main.py",),
        "tutorials/02-intermediate/deep_residual_network": ("main.py",),
        "tutorials/02-intermediate/recurrent_neural_network": ("main.py",),
        "tutorials/02-intermediate/bidirectional_recurrent_neural_network": ("main.py",),
        "tutorials/03-advanced/generative_adversarial_network": ("main.py",),
        "tutorials/03-advanced/variational_autoencoder": ("main.py",),
    },
    "zalandoresearch/pytorch-vq-vae": {
        ".": ("vq-vae.ipynb",),
    },
}
# What programs do wrong, by repository and command.
_RIGHT: dict[tuple[str, str], tuple[str, ...]] = {
    # A softmax before the cross-entropy.
    ("eriklindernoren/PyTorch-GAN", "acgan.py"): ("activation before the loss",),
    ("eriklindernoren/PyTorch-GAN", "infogan.py"): ("activation before the loss",),
    ("eriklindernoren/PyTorch-GAN", "sgan.py"): ("activation before the loss",),
    # A step between two backward passes on one graph, which PyTorch refuses today.
    ("eriklindernoren/PyTorch-GAN", "softmax_gan.py"): ("crashed",),
    ("MorvanZhou/PyTorch-Tutorial", "406_conditional_GAN.py"): ("crashed",),
    # Layers that are made anew in every forward pass.
    ("graykode/nlp-tutorial", "BERT.py"): ("layers not registered",),
    # All words are predicted as one, and the loss ends at that of guessing.
    ("graykode/nlp-tutorial", "Transformer.py"): ("constant outputs",),
    # Weights that are too small on purpose, to be mended later on.
    ("MorvanZhou/PyTorch-Tutorial", "504_batch_normalization.py"): ("vanishing",),
    ("rasbt/deeplearning-models", "cnn-basic.ipynb"): ("vanishing",),
    # Three sigmoids in a row, which end at the loss of guessing.
    ("hunkim/PyTorchZeroToAll", "08_2_dataset_loade_logistic.py"): ("constant outputs",),
}
PROGRAMS: tuple[Program, ...] = tuple(
    Program(repository, folder, command, _RIGHT.get((repository, command.split()[0]), ()))
    for repository, folders in _LISTED.items()
    for folder, commands in folders.items()
    for command in commands
)
