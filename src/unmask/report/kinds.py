"""The meaning of each kind of verdict, in a sentence, and the question that finds it."""

from __future__ import annotations

from unmask.errors import unknown

FLOW: dict[str, str] = {
    "not a number": "An operation makes NaN or infinity, and from then on every weight is lost.",
    "bad data": "The batch itself holds NaN, infinities or labels outside the classes.",
    "no graph": "The loss doesn't depend on any parameter, so backward() changes nothing.",
    "activation before the loss": "A softmax, sigmoid or ReLU before a loss that has its own.",
    "wrong loss": "The loss doesn't fit the kind of labels or the number of outputs.",
    "shapes broadcast": "Outputs and labels are stretched to each other, so wrong pairs compare.",
    "layers not registered": "Layers in a plain list, which no optimiser sees.",
    "layers shared": "A list of layers that are one and the same, and give the same outputs.",
    "parameters without gradient": "Parameters that the loss doesn't reach.",
    "parameters in no optimiser": "Parameters that get a gradient and are never updated.",
    "parameters in two optimisers": "Parameters that are updated twice a step.",
    "weights that don't move": "Updates too small for the precision of the weights.",
    "gradients not zeroed": "Gradients of earlier steps are added to those of this one.",
    "no step": "The optimiser's step is never taken, or is taken before backward().",
    "gradients clipped away": "Clipping takes away nearly all of every gradient.",
    "weight decay too large": "Decay shrinks the weights faster than the gradient grows them.",
    "learning rate vanishes": "The schedule brings the learning rate to nothing too early.",
    "schedule reversed": "A schedule lowers the rate while the figure that it watches improves.",
    "images mixed": "Images of a batch are mixed with each other inside the network.",
    "target leakage": "A model of sequences sees the words that it is to predict.",
    "attention mask reversed": "Attention sees the padding of texts, and not their words.",
    "labels constant": "Every label in the batches is the same.",
    "batches sorted by class": "Batches hold few classes each: the loader doesn't shuffle.",
    "wrong mode": "Dropout or batch norm in evaluation mode while training, or the reverse.",
    "batch too small": "Batch norm on too few images to have statistics.",
    "validation images seen in training": "What validation measures is memory, not accuracy.",
    "loss scale collapses": "Gradients overflow in half precision, so steps are left out.",
    "weights drawn anew": "The weights are replaced between steps, and what was learnt is lost.",
    "warm-up missing": "The full learning rate at once throws the loss up at the start.",
    "train and validation inputs differ": "Training and validation normalise images differently.",
    "dropout too strong": "Dropout removes so much that the signal drowns in noise.",
    "diverged": "The loss grew without end or stopped being a number.",
    "symmetric initialisation": "Units start equal and stay equal, so a layer is one unit wide.",
    "inputs badly scaled": "Inputs are far from the deviation of 1 that layers start for.",
    "dead units": "Units that are zero for every image and get no gradient.",
    "saturated": "Units at the flat ends of their activation, through which no gradient comes.",
    "float underflow": "Gradients smaller than the precision holds become zero.",
    "vanishing": "The gradient shrinks from layer to layer and doesn't reach the first ones.",
    "exploding": "The gradient grows from layer to layer without bound.",
    "constant outputs": "The outputs are the same for every image.",
    "learning rate too high": "A step overshoots: the loss grows instead of falling.",
    "learning rate too low": "Steps change the weights too little to learn anything in time.",
    "momentum too large": "Old gradients are never forgotten, so that steps only grow.",
    "loss independent of the images": "Other images give the same loss: something cuts them off.",
    "labels unrelated to the images": "Labels are no easier to learn than shuffled ones.",
    "schedule begun anew": "A schedule is made again before it has taken its course.",
    "weights not loaded": "None of the stored tensors has a name that the model knows.",
    "loss outweighed": "Other terms of the loss are so large that its task isn't learnt.",
    "loss without effect": "A loss is computed, and no step ever uses its gradient.",
    "state carried over": "A batch begins with what a recurrent layer kept of other sequences.",
    "padding read": "What is said of a text is said after long padding, not at its last word.",
    "targets badly scaled": "Targets so far from 0 that the outputs take most of a training there.",
    "no better than the mean": "The outputs tell nothing that the targets' mean doesn't.",
    "labels imbalanced": "One class is so frequent that predicting it always looks like learning.",
    "gradients not unscaled": "Gradients are used while a GradScaler's scale is still on them.",
    "no activation": "The layers have no activation between them, and compute no more than one.",
    "optimiser made anew": "A new optimiser at every step forgets what the last one had gathered.",
    "clipping without effect": "Gradients are clipped after the step that used them.",
    "running statistics": "Batch norm keeps statistics for evaluation that don't fit the data.",
    "crashed": "The step raised an exception.",
}
DATA: dict[str, str] = {
    "leak": "Test images that are in the training set too, which makes the accuracy too high.",
    "near duplicates across parts": "Test images nearly equal to training images.",
    "duplicates": "Copies within one part, which count twice.",
    "conflicting labels": "Equal images with different labels.",
    "label errors": "Labels that cross-validated probabilities contradict.",
    "missing class": "A class without an image in one part.",
    "starved class": "A class with very few images.",
    "empty class": "A folder beside those of the classes holds no image.",
    "unreadable files": "Files that can't be decoded.",
    "outliers": "Images of unusual brightness, contrast or sharpness.",
    "shortcut": "The border or the mean colour alone predicts the class.",
}
CHECK: dict[str, str] = {
    "logits not finite": "The model outputs NaN or infinity.",
    "training mode": "The model came in training mode.",
    "random output": "Two forward passes of the same image differ.",
    "changes itself": "A forward pass changes the model, on which later predictions depend.",
    "class order": "The model is right once its outputs are put in another order.",
    "batch dependence": "The output for an image depends on the rest of its batch.",
    "probabilities": "The outputs are probabilities, not logits.",
    "saturated logits": "Logits so large that every probability is 0 or 1.",
    "preprocessing": "Images fed in another way are classified better: the stated one is wrong.",
    "preprocessing not stated": "No config says what is done to an image.",
    "no better than chance": "The accuracy can't be told from guessing.",
    "weak class": "A class that is recognised far worse than the others.",
    "overconfident": "Confidence is higher than accuracy.",
    "underconfident": "Confidence is lower than accuracy.",
    "unaware of its mistakes": "Confidence doesn't tell right predictions from wrong ones.",
}
SHIFT: dict[str, str] = {
    "fragile": "Accuracy falls far under a mild corruption.",
    "geometry": "Small shifts, turns or scales of an image change predictions.",
    "pipeline": "A usual difference between training and serving pipelines costs accuracy.",
    "runtime disagrees": "Another runtime or precision predicts other classes.",
    "batch norm statistics": "Statistics of batch norm don't fit the images it now sees.",
}
FOOL: dict[str, str] = {
    "fooled": "Small changes of the image make the classifier predict another class.",
    "attacked": "What was attacked and how, beside the figures.",
    "incomplete": "Parts of the audit couldn't be run.",
    "unfinished": "The attacks were still finding changes when their steps ran out.",
    "silent_success": "An attack succeeded on the way and its last image doesn't show it.",
    "unconstrained_fails": "Even changes of any size don't fool it: the attack is broken.",
    "not_finite_near": "Images near the clean ones get logits that are NaN or infinite.",
    "unstable_predictions": "The same image gets another class when it is seen again.",
    "black_box_beats_gradients": "Attacks without gradients find more: the gradient misleads.",
    "training_mode": "The model came in training mode.",
    "clean_accuracy": "Few images are right before any attack, so little is left to measure.",
    "not_finite": "Some images get logits that are NaN or infinite.",
    "clamped_logits": "Logits are cut to a range, at whose ends no gradient comes through.",
    "gradient_not_finite": "The gradient on the image is NaN or infinite.",
    "quantised_input": "The model rounds its input, which hides the gradient.",
    "thresholded_input": "Beyond a range of pixel values the model sees no difference.",
    "random_output": "Two forward passes of the same image differ.",
    "no_gradient": "No gradient reaches the image, so attacks by gradient find nothing.",
    "saturated_loss": "The loss is so small that its gradient is lost to rounding.",
    "labels_only": "The model gives the class alone, so only attacks by decisions apply.",
    "not_proved": "No attack succeeded and no proof was found either.",
}
QUESTIONS = {"flow": FLOW, "data": DATA, "check": CHECK, "shift": SHIFT, "fool": FOOL}


def explain(kind: str) -> tuple[str, str]:
    """Return the question that finds a kind of verdict, and the kind's meaning.

    Args:
        kind: such as "vanishing".

    Raises:
        UserError: when there is no such kind.
    """
    for question, kinds in QUESTIONS.items():
        if kind in kinds:
            return question, kinds[kind]
    raise unknown("kind of verdict", kind, [k for kinds in QUESTIONS.values() for k in kinds])
