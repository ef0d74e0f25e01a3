from bnnlib.cli import main

if __name__ == "__main__":
    main()
