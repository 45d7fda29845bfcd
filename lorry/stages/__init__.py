"""The stages of the pipeline: each takes directories or references and gives directories or references."""
