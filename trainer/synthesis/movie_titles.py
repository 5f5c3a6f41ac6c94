"""Makes up movie titles that fit a genre. Knows words; knows no user and no rating."""

from collections.abc import Sequence

import numpy as np

_ADJECTIVES = (
    "Silent Last Golden Broken Distant Hidden Second Crooked Restless Borrowed Forgotten Scarlet Quiet "
    "Electric Paper Northern Hollow Velvet Stolen Endless Burning Winter Secret Long"
)
_PLACES = (
    "Lisbon Carthage Duluth Marseille Antwerp Harlem Salt_Creek Veracruz Aberdeen Trieste Kyoto Odessa Memphis "
    "Tangier Bergen Santa_Rosa Galway Havana Reno Bombay Cape_Cod Krakow Dover Monterey Leith Avalon Cairo "
    "Naples Baltimore Shanghai"
)
_NAMES = (
    "Eleanor Jack Marguerite Otto Ruby Walter Ines Felix Dorothy Max Clara Leo Nadia Hugo Iris Sam Josephine "
    "Milo Vera Arthur Lola Gus Beatrice Ivan Mabel Theo Ada Frankie Rosalind Ned"
)
NOUNS = {
    "Action": "Strike Convoy Vendetta Pursuit Detonator Bodyguard Showdown Ambush Renegade Countdown Overpass Bullet",
    "Adventure": "Expedition Compass Treasure Island Voyage Map Jungle Caravan Lagoon Summit Pirate Ruins",
    "Animation": "Fox Teapot Moonbeam Tortoise Kite Snowman Puddle Beetle Lantern Owl Carrot Umbrella",
    "Children's": "Puppy Treehouse Birthday Pony Sandcastle Kitten Balloon Camp Bicycle Grandma Puzzle Pancake",
    "Comedy": "Roommate Honeymoon Dentist Wedding Landlord Mix-Up Vacation Diet Reunion Sofa Neighbor Promotion",
    "Crime": "Heist Informant Alibi Racket Syndicate Verdict Getaway Forger Ledger Precinct Fence Payroll",
    "Documentary": "Harvest Archive Portrait Century Glacier Orchestra Election Factory River Witness Railway Reef",
    "Drama": "Daughter Inheritance Orchard Promise Letter Brother Silence Harbor Season Confession House Road",
    "Fantasy": "Dragon Sorcerer Kingdom Amulet Unicorn Prophecy Enchantress Griffin Spell Crown Goblin Realm",
    "Film-Noir": "Shadow Alley Blonde Nightfall Stranger Cigarette Detour Staircase Widow Fog Double Venetian",
    "Horror": "Grave Cellar Scream Asylum Curse Scarecrow Coven Crypt Butcher Fang Mannequin Séance",
    "Musical": "Melody Chorus Tango Serenade Footlight Overture Ballroom Trumpet Refrain Cabaret Waltz Encore",
    "Mystery": "Clue Locket Disappearance Riddle Manor Cipher Diary Key Footprint Guest Clock Passenger",
    "Romance": "Kiss Summer Valentine Bouquet Heart Proposal Moonlight Café Rendezvous Sonnet Bride Embrace",
    "Sci-Fi": "Orbit Android Nebula Colony Signal Paradox Starship Replicant Horizon Vector Eclipse Machine",
    "Thriller": "Hostage Threshold Deception Motive Trap Fugitive Intruder Warning Labyrinth Deadline Mirror Wiretap",
    "War": "Battalion Trench Sergeant Armistice Bridge Regiment Siege Pilot Frontline Bugle Beachhead Medal",
    "Western": "Saddle Canyon Gunslinger Stagecoach Marshal Mustang Prairie Outlaw Rodeo Homestead Spur Gulch",
}
PATTERNS = (
    "The {adjective} {noun}",
    "{adjective} {noun}",
    "{name}'s {noun}",
    "{noun} in {place}",
    "A {noun} for {name}",
    "The {adjective} {noun} of {place}",
    "{name} and the {adjective} {noun}",
)


ADJECTIVES, PLACES, NAMES = (tuple(words.split()) for words in (_ADJECTIVES, _PLACES, _NAMES))
"""An underscore stands for a space."""


def make_titles(genres: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Makes one title a movie from its first genre; titles recur only where a genre has run out of them."""
    places = np.asarray(genres)
    titles = np.empty(len(places), object)
    for genre in NOUNS:
        rows = np.flatnonzero(places == genre)
        titles[rows] = _titles_of(genre, len(rows), rng)
    return [str(title) for title in titles]


def _titles_of(genre: str, count: int, rng: np.random.Generator) -> list[str]:
    nouns = NOUNS[genre].split()
    widths = [_width(pattern, len(nouns)) for pattern in PATTERNS]
    # Short patterns first: the long ones are only needed where there are many movies.
    used = next((n for n in range(3, len(widths)) if sum(widths[:n]) >= 2 * count), len(widths))
    total = sum(widths[:used])
    drawn = rng.choice(total, count, replace=count > total)
    starts = np.cumsum([0, *widths[:used]])
    patterns = np.searchsorted(starts, drawn, side="right") - 1
    return [
        _title(PATTERNS[pattern], int(number), nouns)
        for pattern, number in zip(patterns.tolist(), (drawn - starts[patterns]).tolist(), strict=True)
    ]


def _width(pattern: str, num_nouns: int) -> int:
    choices = (("{adjective}", len(ADJECTIVES)), ("{place}", len(PLACES)), ("{name}", len(NAMES)))
    return int(np.prod([num for field, num in choices if field in pattern])) * num_nouns


def _title(pattern: str, number: int, nouns: Sequence[str]) -> str:
    words = {}
    for field, choices in (("noun", nouns), ("adjective", ADJECTIVES), ("place", PLACES), ("name", NAMES)):
        if f"{{{field}}}" in pattern:
            number, place = divmod(number, len(choices))
            words[field] = choices[place].replace("_", " ")
    title = pattern.format(**words)
    vowel = title.startswith("A ") and title[2] in "AEIOU"
    return f"An {title[2:]}" if vowel else title
