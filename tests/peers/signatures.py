"""DKIM signatures and ARC seals by an independent implementation (Debian's python3-dkim).

signatures.py sign SELECTOR DOMAIN KEY < mail      prints the mail with a DKIM-Signature before it
signatures.py arc OWNER RECORD < mail              prints what the ARC chain is worth: pass, fail or none, and why
"""

import sys

import dkim


def main(arguments):
    mail = sys.stdin.buffer.read()
    if arguments[0] == "sign":
        selector, domain, key = arguments[1:]
        with open(key, "rb") as file:
            field = dkim.sign(mail, selector.encode(), domain.encode(), file.read())
        sys.stdout.buffer.write(field + mail)
    else:
        owner, record = arguments[1:]
        keys = {owner.encode(): record.encode()}
        result, _, reason = dkim.arc_verify(mail, dnsfunc=lambda name, timeout=5: keys.get(name))
        print(result.decode(), reason)


main(sys.argv[1:])
