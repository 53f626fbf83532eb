"""`python -m shop.psp`: the payment gateway."""

from pipeline.gateway import server

if __name__ == "__main__":
    server.main()
