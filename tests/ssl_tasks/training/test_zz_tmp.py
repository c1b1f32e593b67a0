from ssl_tasks.training.collectives import rank
def bad():
    if rank()==1: raise RuntimeError("boom here")
    return {"a":rank()}
def good(): return {"a": rank()}
def test_a(run_ranks): run_ranks(bad)
def test_b(run_ranks): assert run_ranks(good)==[{"a":0},{"a":1}]
