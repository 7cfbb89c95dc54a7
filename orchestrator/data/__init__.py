"""Images on disk to batches in memory, as pure functions of (seed, epoch, sample).

folder.py     lists a folder in ImageNet layout: classes, files, what is wrong with it
image.py      one file: is it whole, how large is it, which pixels does it hold
manifest.py   the table of a split: path, label, width, height and size of each image, memory-mapped
inspection.py all images of a data set, in parallel
index.py      makes manifests, once; checks that train and val belong together
verify.py     whether a data set is what it should be, by expectation.py
stats.py      how large its images are, mean and deviation of its channels
order.py      the order of an epoch
draws.py      the random crop and mirror of a sample
color.py      the random change of a sample's colours
transforms.py what is done to an image, with its numbers; which part of each image that means
storage.py    byte ranges of files in a folder or an object store
sharding.py   writes shards; shard_set.py finds and opens them
staging.py    copies shards to a local disk
source.py     the bytes of an image, wherever it lies
batch.py      what a loader is asked for and what it gives
loader.py     the interface of loaders; dali.py and reference.py are the two there are
resize.py     what both do to decoded pixels
prepare/      writes data sets, from their official archives; parts.py is the seam between reading and writing
"""
