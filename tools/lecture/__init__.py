"""The lecture: pages of docs/lecture/ that the functions of gm_jax write, each with a picture and checked numbers.

__main__.py        the command
page.py            what a page is, and how it becomes Markdown and PNG
contents.py        chapters and pages, in the order in which the field is taught
training.py        a short training, with states along it
worlds.py          mixtures of normals, whose densities and scores are known, and digits
autoencoders.py adversarial.py mode_collapse.py autoregressive.py flows.py diffusion.py captions.py energies.py
    evaluation.py equivalences.py taxonomy.py  the pages, a function each
"""
