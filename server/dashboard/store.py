"""The folder of runs: which there are, what each holds, and who wants to know of changes.

The pages use these, and nothing else of the data layer:

    store = RunStore(folder, Limits())
    store.poll(now)                  # reads what was appended; in a thread, every second or so
    store.summaries(), store.alarms()
    store.detail(name), store.search(name, query)     # None for an unknown name
    revision = await store.changed(since=revision)    # returns when something changed
"""
