"""Published devices and curves: fields of `MTJDevice` and `EmpiricalCurve`, in SI units."""

from typing import Any

DEVICES: dict[str, dict[str, Any]] = {
    "stt_reference": dict(
        diameter=40e-9,
        thickness=1.2e-9,
        saturation_magnetization=1.0e6,
        damping=0.015,
        spin_torque_efficiency=0.6,
        anisotropy=109.87e3,
        resistance_area_product=10e-12,
        tmr=1.0,
        tmr_half_voltage=0.5,
        vcma_coefficient=50e-15,
        oxide_thickness=1.4e-9,
        pulse_width_range=(2e-9, 20e-9),
        gate_voltage_range=(-1.0, 1.0),
        nominal_pulse_width=2e-9,
        source="Synthetic device of spinkeras, typical of a 40 nm CoFeB/MgO perpendicular MTJ.",
        assumed="Every value; chosen for a thermal stability of 40 at 300 K.",
    ),
    "stt_ikeda2010": dict(
        diameter=40e-9,
        thickness=1.3e-9,
        saturation_magnetization=1.257e6,
        damping=0.027,
        spin_torque_efficiency=0.596,
        anisotropy=109.0e3,
        resistance_area_product=18e-12,
        tmr=1.24,
        tmr_half_voltage=0.5,
        vcma_coefficient=50e-15,
        oxide_thickness=1.0e-9,
        pulse_width_range=(2e-9, 20e-9),
        gate_voltage_range=(-0.7, 0.7),
        nominal_pulse_width=2e-9,
        source="S. Ikeda et al., Nature Materials 9, 721 (2010): 40 nm junction with Delta = 43, "
        "Ic0 = 49 uA, TMR 124 %, RA 18 ohm um^2; film of 1.3 nm CoFeB with Ms (1.58 T) and "
        "damping.",
        assumed="Every value of the source is quoted from memory, not checked against the paper. "
        "thickness, Ms and damping are those of the film: the recording layer of the junction "
        "is said to be 1.7 nm, its oxide 0.85 to 0.9 nm. anisotropy from the measured Delta "
        "(the film value would give Delta = 83, so the device is not a macrospin); eta from "
        "Ic0; VCMA, oxide thickness, TMR roll-off, pulse and gate ranges.",
    ),
    "stt_arm": dict(
        diameter=50e-9,
        thickness=1.0e-9,
        saturation_magnetization=1.2e6,
        damping=0.010,
        spin_torque_efficiency=0.75,
        anisotropy=134.3e3,
        resistance_area_product=10e-12,
        tmr=1.0,
        tmr_half_voltage=0.5,
        vcma_coefficient=30e-15,
        oxide_thickness=1.4e-9,
        pulse_width_range=(2e-9, 20e-9),
        gate_voltage_range=(-0.5, 0.5),
        nominal_pulse_width=2e-9,
        source="Example script plot_sllgs_fpe_comparison.py of the mram_simulation_framework of "
        "Arm (F. Garcia-Redondo et al., SMACD and ESSDERC 2021): diameter, thickness, Ms, "
        "damping, K_i 1.0 mJ/m^2, polarisation 0.75, 300 K. A setting of a simulation, no "
        "measured device.",
        assumed="anisotropy as K_i / t_f less the demagnetising energy along the axis of the disc "
        "(N_z = 0.957, as the framework computes its own; N_z - N_x, which acts on a macrospin, "
        "would give 154 kJ/m^3 and Delta = 73); eta taken equal to the polarisation; "
        "resistance-area product, TMR and its roll-off, VCMA, oxide thickness, pulse and gate "
        "ranges.",
    ),
    "vcma_uta2022": dict(
        diameter=50e-9,
        thickness=1.1e-9,
        saturation_magnetization=1.2e6,
        damping=0.03,
        spin_torque_efficiency=0.6,
        anisotropy=38.2e3,
        resistance_area_product=9.8e-12,
        tmr=1.2,
        tmr_half_voltage=0.5,
        vcma_coefficient=75e-15,
        oxide_thickness=1.5e-9,
        pulse_width_range=(2e-9, 20e-9),
        gate_voltage_range=(-0.5, 0.45),
        nominal_pulse_width=2e-9,
        source="Liu et al., IEEE J. Explor. Solid-State Comput. Devices Circuits 8, 194 (2022). "
        "Constants as in its open model, Stochastic_MTJ_Model: diameter 50 nm, free layer 1.1 nm, "
        "Ms 1200 kA/m, damping 0.03, K_i 1.0056 mJ/m^2, oxide 1.5 nm, R_P 5 kohm and TMR 120 % of "
        "the device VCMA in mtj_parameters.json; VCMA 75 fJ/(V m), polarisation 0.6 and a TMR "
        "halved at 0.5 V in MTJ_RNG_vars.f90.",
        assumed="eta taken equal to the polarisation; anisotropy as K_i / t_f less the "
        "demagnetising energy (N_z - N_x = 0.968, with the factors of the model); pulse and gate "
        "ranges (above 0.84 V the anisotropy would vanish).",
    ),
    "vgsot_zhang2020": dict(
        diameter=50e-9,
        thickness=1.1e-9,
        saturation_magnetization=0.625e6,
        damping=0.05,
        spin_torque_efficiency=0.58,
        anisotropy=58.2e3,
        resistance_area_product=650e-12,
        tmr=1.0,
        tmr_half_voltage=0.5,
        vcma_coefficient=60e-15,
        oxide_thickness=1.4e-9,
        pulse_width_range=(1e-9, 12e-9),
        gate_voltage_range=(-0.25, 0.25),
        nominal_pulse_width=2e-9,
        write_resistance=1112.0,
        switching_curve=dict(
            threshold=90.07e-6,
            slope=60.37e3,
            b=0.3894,
            c=-0.1147,
            ceiling=0.7706,
            pulse_width=2e-9,
            threshold_exponent=-0.01911,
            slope_exponent=0.0746,
            anisotropy_exponent=1.0955,
            slope_anisotropy_exponent=-0.429,
            ceiling_anisotropy_rate=0.901,
        ),
        source="K. Zhang et al., IEEE Access 8, 50792 (2020); its original model is VGSOT-MTJ of "
        "the Spinmodel library (spinlib.com/VGSOT_MTJ.html). Constants as in the open Python port "
        "of that, vgsot_python_model: diameter 50 nm, free layer 1.1 nm, K_i 0.32 mJ/m^2, Ms 625 "
        "kA/m, damping 0.05, spin Hall angle 0.25, polarisation 0.58, VCMA 60 fJ/(V m), oxide 1.4 "
        "nm, RA 650 ohm um^2, TMR 100 % halved at 0.5 V, channel 60 x 50 x 3 nm of 278 uohm cm, "
        "exchange bias 50 Oe, field-like torque 0.",
        assumed="switching_curve: fitted to the stochastic LLG equation with these constants, 3 ns "
        "of relaxation and no heating (python -m tools.fit_spin_orbit), within 0.04 "
        "of it in the pulse and gate ranges, which are set by that; K_eff is K_i / t_f less the "
        "demagnetising energy (N_z - N_x = 0.948); eta taken equal to the polarisation.",
    ),
}

# Junctions of a low barrier: for switching_model="equilibrium", or with a curve of their own
FREE_RUNNING = {
    "smtj_reference": dict(
        diameter=40e-9,
        thickness=1.2e-9,
        saturation_magnetization=1.0e6,
        damping=0.015,
        spin_torque_efficiency=0.6,
        anisotropy=13.734e3,
        resistance_area_product=10e-12,
        tmr=1.0,
        tmr_half_voltage=0.5,
        vcma_coefficient=50e-15,
        oxide_thickness=1.4e-9,
        pulse_width_range=(10e-9, 100e-6),
        gate_voltage_range=(-0.3, 0.3),
        nominal_pulse_width=2e-6,
        source="Synthetic low-barrier (superparamagnetic) device of spinkeras: the pillar of "
        "stt_reference with an anisotropy so low that it runs freely; for "
        "switching_model='equilibrium'.",
        assumed="Every value; chosen for a thermal stability of 5 at 300 K (1.7 to 8.3 over the "
        "gate). Published superparamagnetic junctions leave out magnetisation, damping or "
        "efficiency, and are often faster than a macrospin: give a measured relaxation_time.",
    ),
    "smtj_schnitzspan2023": dict(
        diameter=50e-9,
        thickness=1.2e-9,
        saturation_magnetization=1.0e6,
        damping=0.015,
        spin_torque_efficiency=0.6,
        anisotropy=7.0e3,
        resistance_area_product=15e-12,
        tmr=1.0,
        tmr_half_voltage=0.5,
        vcma_coefficient=0.0,
        oxide_thickness=1.0e-9,
        pulse_width_range=(5e-9, 1e-6),
        gate_voltage_range=(0.0, 0.0),
        nominal_pulse_width=25e-9,
        switching_curve=dict(threshold=0.0, slope=12.7e3, relaxation_time=5e-9),
        source="L. Schnitzspan, M. Klaeui, G. Jakob, Phys. Rev. Applied 20, 024002 (2023), arXiv "
        "2301.05694: superparamagnetic junction of 50 nm, magnetised in the plane; resistance-area "
        "product 15 ohm um^2, autocorrelation time down to 5 ns, dwell times below 10 ns. From its "
        "abstract; the volume and page of the journal are quoted from memory.",
        assumed="threshold and slope of the switching_curve, which the abstract does not give: no "
        "stray field, and a logistic curve that 1 MA/cm^2 (19.6 uA), the order of the current "
        "densities it names, moves from 1/2 to 1 / (1 + exp(-1)). TMR and its roll-off, the reads' "
        "intervals; magnetisation, damping, efficiency, thicknesses and anisotropy, which a curve "
        "of its own leaves without effect.",
    ),
}

# Estimates of `fit_empirical` from the published counts; tests/calibration repeats the fit.
CURVES: dict[str, dict[str, Any]] = {
    "sot_80nm": dict(
        threshold=1.1565e-3,
        slope=7.902e3,
        pulse_width=0.75e-9,
        source="Three-terminal spin-orbit-torque junction, 80 nm, 776 ohm channel, 0.75 ns pulses, "
        "12 voltages from 0.80 to 1.02 V of 50 pulses: raw file names of the MIT-licensed "
        "repository JinChengZ18/vgsot-sim. Deviance 11.2 on 10 degrees of freedom. Nothing is "
        "known about other pulse widths and anisotropies.",
    ),
}
