"""A concierge made of rules: no model, no network, and nothing in it is for sale.

    vocabulary                        words and places by what they mean
    understanding                     a sentence in, what it says out
    slots                             what it says, noted in the state, recalled, and forgotten
    replies                           the state in, an answer out: a question, a plan, offers
    chat                              one turn of a conversation
    transcript, notes, refusals       what a client is shown, and what it is told instead
    live, stopping                    an answer as it comes, who else sees it, and how it is stopped
    undo                              a new conversation, and the way back
    visitors, sidebar                 whose conversations they are, and a list of them
    pages, api                        the doors, for people and for programs
    consumers, stream                 the doors through which an answer comes word by word
    replay                            recorded dialogues, driven through the store

Only `chat` and what comes after it knows Django or django_convstate; the rest are rules, and pure.
"""
