"""A site's own model: the final shared one after some further steps at the site, and its worth.

It is trained for one round more, from the shared weights and with the site's own batch-norm
statistics, at the rates that the run's schedule has at the end of so many rounds. Nothing of it is
kept or sent: the coordinator learns two mean Dice, of the shared model and of the site's own.

Source: Wang et al. 2019, Federated evaluation of on-device personalization.
"""

from dataclasses import replace

from client.permission import permitted_agreement, require_training
from client.rounds import network_after, train_on_cases, validation_dice
from client.site import Agreement, SiteConfig
from client.training.local_training import LocalRound
from common.axes import Weights
from common.messages import Personalised, PersonaliseTask, TrainTask


def personalise(site: SiteConfig, task: PersonaliseTask, weights: Weights) -> Personalised:
    """Test the shared model on the site's validation cases, train it further, and test again.

    Returns:
        Nothing where the site has no validation cases or no statistics of its own, or does not
        release what it measures on them.
    """
    agreed = permitted_agreement(site, task.run, task.plan_hash)
    require_training(site, agreed, task.n_steps)
    network, device, ready = network_after(site, agreed, task.method, task.round, weights)
    shared = validation_dice(site, agreed, network, device) if ready else None
    if shared is None:
        return Personalised()
    further = TrainTask(
        run=task.run,
        plan_hash=task.plan_hash,
        method=task.method,
        round=task.round + 1,
        proximal_mu=0.0,
    )
    longer = _one_round_more(agreed, task)
    train_on_cases(LocalRound(site, longer, further, weights, len(agreed.cases)), network, device)
    return Personalised(shared=shared, own=validation_dice(site, agreed, network, device))


def _one_round_more(agreed: Agreement, task: PersonaliseTask) -> Agreement:
    """Return the terms of a run with a further round, which leaves nothing on disk."""
    config = agreed.terms.config
    federation = replace(
        config.federation, rounds=task.round + 1, local_steps=task.n_steps, local_epochs=None
    )
    training = replace(config.training, optimizer_state="reset", checkpoint_every_steps=0)
    changed = replace(config, federation=federation, training=training)
    return replace(agreed, terms=replace(agreed.terms, config=changed))
