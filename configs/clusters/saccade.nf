// Saccade as a Nextflow module (DSL2). Not run by us: written from Nextflow's documentation.
//
//     include { SACCADE; SACCADE_CACHE } from './saccade.nf'
//     workflow { SACCADE(channel.of(['/data/cohort.csv', '/data/model', '/data/out']), 8) }
//     workflow { SACCADE_CACHE('/slow-disk/slides', '/data/pyramids') }
//
// Expects absolute paths, as text, that all tasks have (in containers as mounts), and OUT on a file system that knows
// locks (flock). Tasks share the slides among them. A slide that fails stops no task but the last, which tries it once
// more, writes the table and ends with Saccade's exit code 1. The same command goes on, with -resume or without.
process SACCADE_PART {
    cache false // OUT knows what is done
    cpus 4
    memory '16 GB'

    input:
    tuple val(slides), val(model), val(out), val(part)

    output:
    tuple val(slides), val(model), val(out), val(part)

    script:
    """
    saccade run '${slides}' --model '${model}' --out '${out}' --workers ${task.cpus} || [ \$? -eq 1 ]
    """
}

process SACCADE_RUN {
    cache false
    errorStrategy 'finish'
    cpus 4
    memory '16 GB'

    input:
    tuple val(slides), val(model), val(out), val(parts)

    output:
    val out

    script:
    """
    saccade run '${slides}' --model '${model}' --out '${out}' --workers ${task.cpus}
    """
}

process SACCADE_CACHE {
    cache false
    errorStrategy 'finish'
    cpus 4
    memory '16 GB'

    input:
    val slides
    val out

    output:
    val out

    script:
    """
    saccade cache '${slides}' --out '${out}' --workers ${task.cpus}
    """
}

workflow SACCADE {
    take:
    jobs // [slides, model, out], each a run
    parts // tasks of each

    main:
    SACCADE_PART(jobs.combine(channel.of(1..parts)))
    SACCADE_RUN(SACCADE_PART.out.groupTuple(by: [0, 1, 2], size: parts))

    emit:
    SACCADE_RUN.out
}
