"""The English words that change what a sentence claims, and those that only hold it together."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FIRST_PERSON = {"i": "i", "me": "i", "my": "my", "mine": "my", "myself": "i", "we": "we", "us": "we", "our": "our"}
OTHERS = _words(
    "you he she they it him her them your his their hers theirs its this that these those there someone somebody "
    "anyone everyone everybody people"
)
# A clause that ends with one of these speaks of what only its context names, or was cut.
POINTERS = _words(
    "it him her them that this these those there you one he she they so than and or but to of the a an with for in at "
    "from by as if because my your his their our is am are was were i we who which what when where how why"
)
NEGATIONS = _words(
    "not no never none nobody nothing nowhere neither nor without hardly barely rarely seldom cannot ain't"
)
# Words that change what a sentence claims, by what they do to it.
MARKERS = {
    **dict.fromkeys(("would", "could", "might", "may", "should", "must", "wish", "hope", "pretend", "dream"), "modal"),
    **dict.fromkeys(("if", "unless", "until", "whether", "except", "supposedly"), "condition"),
    **dict.fromkeys(
        ("maybe", "perhaps", "probably", "possibly", "almost", "nearly", "guess", "kinda", "joking"), "doubt"
    ),
    **dict.fromkeys(("kidding", "jk", "allegedly", "suppose", "seem", "seems"), "doubt"),
    **dict.fromkeys(("was", "were", "did", "had", "used", "formerly", "once", "ago"), "past"),
    **dict.fromkeys(("will", "shall", "gonna", "someday", "eventually"), "future"),
}
PAST_FORMS = {
    "went": "go", "had": "have", "did": "do", "ate": "eat", "grew": "grow", "got": "get", "bought": "buy",
    "taught": "teach", "thought": "think", "felt": "feel", "found": "find", "knew": "know", "met": "meet",
    "made": "make", "ran": "run", "saw": "see", "spoke": "speak", "told": "tell", "took": "take", "wrote": "write",
    "came": "come", "drove": "drive", "kept": "keep", "left": "leave", "lost": "lose", "played": "play",
    "sang": "sing", "slept": "sleep", "spent": "spend", "swam": "swim", "woke": "wake", "wore": "wear", "won": "win",
    "became": "become", "began": "begin", "broke": "break", "chose": "choose", "drank": "drink", "flew": "fly",
    "gave": "give", "heard": "hear", "held": "hold", "rode": "ride", "said": "say", "sold": "sell", "threw": "throw",
}  # fmt: skip
FUNCTION = _words(
    "a an the and or but so as at by for from in into of off on onto out over to up with about am is are be been being "
    "was were do does did doing have has had having will would can could may might shall should must just really very "
    "also too then than that this these those there here it its he she they them him her his their you your we us our "
    "i me my mine myself who whom which what when where why how because while since if though although some any such "
    "well oh yeah yes yep yup no ok okay haha hahaha lol um uh hmm hey hi so actually honestly basically totally "
    "absolutely definitely certainly literally super quite pretty still even kind sort bit lot lots much many "
    "else again thing things stuff let lets please not "
    "wow aww oops anyway anyways though plus etc true right sure"
)
# Leaving these out changes the degree or the style of a claim, not the claim.
INSIGNIFICANT = _words(
    "a an the some really very just also so actually honestly totally absolutely definitely certainly literally super "
    "quite pretty still even truly much do does that well haha lol yeah though"
)
# Forms of one function word.
MERGED = {"is": "am", "are": "am", "has": "have", "were": "was"}
# Verbs that say nothing by themselves: "I think so", "I know", "I guess".
LIGHT = _words(
    "think know guess feel mean say go come get see want try need make take use look tell ask talk keep happen good "
    "call bad cool nice fun great okay fine sorry glad happy sad one two way time today yesterday tomorrow now "
    "more most all other another same only everything anything something everyone anyone someone call"
)
# Of the insignificant words, those whose adding says no more.
PLAIN = _words("a an the do does that haha lol yeah well though")
OPENERS = _words(
    "well oh yeah yes yep yup ok okay haha hahaha lol um uh hmm hey hi so and but because actually honestly basically "
    "anyway anyways plus also wow aww though like sure right hello"
)
LIKES = _words("like love enjoy adore fan fond interested interest favorite favourite hobby obsessed passionate")
LIKING_NOUNS = _words("favorite favourite fave fav hobby hobbies interest interests passion passions obsession")
DISLIKES = _words("hate dislike despise loathe detest annoy annoying annoys annoyed disgusting gross")
# Verbs by which a clause about somebody else of the speaker's (``my brother …``) is told from a mere name.
VERBS = _words(
    "live work go love like hate play want need think know come make take say get eat drink read watch see call teach "
    "study own drive run sing speak collect enjoy prefer help keep give tell feel look grow move travel visit start "
    "stop use try write talk cook bake dance swim ride raise own sell buy build train run sleep smoke hunt fish hike"
)
QUESTION_WORDS = _words("what why how who where which whose whom when")
AUXILIARIES = _words("do does did is are am was were can could would should will have has had may might shall")
SPELLED_OUT = {
    "im": "i am", "ive": "i have", "dont": "do not", "doesnt": "does not", "didnt": "did not", "cant": "can not",
    "cannot": "can not", "wont": "will not", "isnt": "is not", "arent": "are not", "wasnt": "was not",
    "werent": "were not", "havent": "have not", "hasnt": "has not", "hadnt": "had not", "couldnt": "could not",
    "wouldnt": "would not", "shouldnt": "should not", "aint": "is not", "can't": "can not", "won't": "will not",
    "shan't": "shall not", "ain't": "is not", "gonna": "going to", "wanna": "want to", "gotta": "have to",
    "dunno": "do not know", "u": "you", "thats": "that is", "whats": "what is", "it's": "it is", "that's": "that is",
    "what's": "what is", "there's": "there is", "he's": "he is", "she's": "she is", "let's": "let us", "nope": "no",
    "nah": "no",
}  # fmt: skip
ENDINGS = (("n't", "not"), ("'m", "am"), ("'re", "are"), ("'ve", "have"), ("'ll", "will"), ("'d", "would"))
