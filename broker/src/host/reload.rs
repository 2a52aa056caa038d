//! Changing over to other declarations while the broker runs: what is new is loaded and configured before anything that
//! runs is touched, and what is the same goes on undisturbed.

use std::sync::Arc;

use super::{
    instance::{Instance, PluginState},
    needs::missing,
    plugins::{Plugins, check_names},
    stop::{Limit, stop_all},
};
use crate::{
    access::RuleSetter, declaration::PluginDeclaration, error::BrokerError, settings::BrokerSettings,
};

/// What a reload has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Instances that were not there before.
    pub added: Vec<String>,
    /// Instances that are there no longer.
    pub removed: Vec<String>,
    /// Instances whose declaration has changed.
    pub restarted: Vec<String>,
    /// Instances that went on.
    pub unchanged: Vec<String>,
    /// Those of them that had failed, and have been started again.
    pub recovered: Vec<String>,
    /// Those of them that run, and have read anew the files that their tables name.
    pub refreshed: Vec<String>,
    /// What went wrong: who could not start, or not read its files. The others are not concerned.
    pub errors: Vec<BrokerError>,
}

/// What becomes of one declaration.
enum Step {
    Stays(Arc<Instance>, PluginDeclaration),
    Comes { fresh: Arc<Instance>, instead_of: Option<Arc<Instance>> },
}

impl Plugins {
    /// Changes over to these settings and declarations.
    ///
    /// # Errors
    /// What is wrong with them. Then nothing has changed.
    pub(crate) fn reload(
        &self,
        settings: &BrokerSettings,
        declarations: Vec<PluginDeclaration>,
    ) -> Result<Reloaded, BrokerError> {
        let _changing = self.change()?;
        check_names(&declarations)?;
        let before = self.all();
        let policy = self.libraries.set_policy(settings.library_policy());
        let steps = self.prepare(&before, declarations);
        self.libraries.forget_prepared();
        let steps = steps.inspect_err(|_| {
            self.libraries.set_policy(policy);
        })?;
        self.core.apply(settings);
        Ok(self.carry_out(&before, steps))
    }

    /// Loads and configures what is new or has changed, or nothing of it.
    fn prepare(
        &self,
        before: &[Arc<Instance>],
        declarations: Vec<PluginDeclaration>,
    ) -> Result<Vec<Step>, BrokerError> {
        let previous = |declaration: &PluginDeclaration| {
            before.iter().find(|instance| instance.name == declaration.name)
        };
        let is_same =
            |old: &&Arc<Instance>, declaration: &PluginDeclaration| old.declaration().is_same(declaration);
        let changed: Vec<_> = declarations
            .iter()
            .filter(|declaration| previous(declaration).filter(|old| is_same(old, declaration)).is_none())
            .collect();
        self.prepare_libraries(&changed);
        let mut steps = Vec::new();
        for declaration in declarations {
            let old = previous(&declaration);
            if let Some(same) = old.filter(|old| is_same(old, &declaration)) {
                steps.push(Step::Stays(same.clone(), declaration));
                continue;
            }
            let fresh = Instance::candidate(declaration, self.core.clone());
            let configured = self.configure_one(&fresh);
            steps.push(Step::Comes { fresh, instead_of: old.cloned() });
            if let Err(error) = configured {
                steps.iter().for_each(Step::discard);
                return Err(error);
            }
        }
        let needs: Vec<_> = steps.iter().map(|step| step.instance().needs()).collect();
        if let Some(error) = missing(&needs).into_iter().next() {
            steps.iter().for_each(Step::discard);
            return Err(error);
        }
        Ok(steps)
    }

    fn carry_out(&self, before: &[Arc<Instance>], steps: Vec<Step>) -> Reloaded {
        let mut reloaded = Reloaded::default();
        let after: Vec<_> = steps.iter().map(|step| step.instance().clone()).collect();
        let is_among = |instance: &Arc<Instance>, all: &[Arc<Instance>]| {
            all.iter().any(|other| Arc::ptr_eq(other, instance))
        };
        let leaving: Vec<_> = before.iter().filter(|old| !is_among(old, &after)).cloned().collect();
        let had_run: Vec<_> = leaving.iter().map(|old| old.state() == PluginState::Started).collect();
        let is_declared = |name: &str| after.iter().any(|instance| instance.name == name);
        reloaded.removed =
            leaving.iter().map(|old| old.name.clone()).filter(|name| !is_declared(name)).collect();
        stop_all(&leaving, "broker.toml has changed", Limit::of_change(self.core.stop_limit()));
        self.instances.write().clone_from(&after);
        self.core
            .router
            .access
            .release_unless(|setter| after.iter().any(|instance| instance.is_setter(setter)));
        self.core.router.access.rule_locations.forget();
        let mut to_serve = Vec::new();
        for step in steps {
            match step {
                Step::Stays(instance, declaration) => {
                    instance.moved_to(declaration);
                    reloaded.unchanged.push(instance.name.clone());
                    if matches!(instance.state(), PluginState::Failed(_)) {
                        to_serve.extend(self.recover(&instance, &mut reloaded));
                    }
                }
                Step::Comes { fresh, instead_of } => {
                    fresh.adopt();
                    let names =
                        if instead_of.is_some() { &mut reloaded.restarted } else { &mut reloaded.added };
                    names.push(fresh.name.clone());
                    let Err(error) = self.bring_up(&fresh) else {
                        to_serve.push(fresh);
                        continue;
                    };
                    tracing::error!("{error}");
                    reloaded.errors.push(error);
                    let had_run = |old: &Arc<Instance>| {
                        leaving.iter().zip(&had_run).any(|(left, ran)| *ran && Arc::ptr_eq(left, old))
                    };
                    match instead_of.filter(had_run) {
                        Some(old) => to_serve.extend(self.take_back(&fresh, &old, &mut reloaded.errors)),
                        None => fresh.try_later(),
                    }
                }
            }
        }
        // not before: there must be no moment without rules between those of two instances, nor where one that could set
        // them has failed
        let may_set_rules = |setter: &RuleSetter| after.iter().any(|instance| instance.may_set_rules(setter));
        self.core.router.drop_released_rules(may_set_rules);
        to_serve.iter().for_each(|instance| instance.serve());
        self.refresh(&mut reloaded);
        // what was looked for while declarations moved
        self.core.router.access.rule_locations.forget();
        reloaded
    }

    /// Starts an instance at once that had failed; later, as its policy says, where that fails.
    fn recover(&self, instance: &Arc<Instance>, reloaded: &mut Reloaded) -> Option<Arc<Instance>> {
        instance.retire();
        match self.configure_one(instance).and_then(|()| self.bring_up(instance)) {
            Ok(()) => {
                tracing::info!(plugin = instance.name, "failed plugin started again");
                reloaded.recovered.push(instance.name.clone());
                Some(instance.clone())
            }
            Err(error) => {
                tracing::error!("{error}");
                reloaded.errors.push(error);
                instance.try_later();
                None
            }
        }
    }

    /// Brings an instance up again as it was before; to be started later where that fails.
    pub(super) fn take_back(
        &self,
        fresh: &Arc<Instance>,
        old: &Arc<Instance>,
        errors: &mut Vec<BrokerError>,
    ) -> Option<Arc<Instance>> {
        let again = old.as_it_was();
        self.replace(fresh, &again);
        match self.configure_loaded(&again).and_then(|()| self.bring_up(&again)) {
            Ok(()) => {
                tracing::warn!(plugin = again.name, "goes on as it was declared before");
                Some(again)
            }
            Err(error) => {
                tracing::error!("not even as it was before: {error}");
                errors.push(error);
                again.try_later();
                None
            }
        }
    }

    fn refresh(&self, reloaded: &mut Reloaded) {
        for instance in self.all().iter().filter(|instance| reloaded.unchanged.contains(&instance.name)) {
            if instance.state() != PluginState::Started {
                continue;
            }
            match instance.refresh() {
                Ok(()) => reloaded.refreshed.push(instance.name.clone()),
                Err(error) => {
                    let error = BrokerError::Refresh { plugin: instance.name.clone(), error };
                    tracing::error!("{error}");
                    reloaded.errors.push(error);
                }
            }
        }
    }
}

impl Step {
    fn instance(&self) -> &Arc<Instance> {
        match self {
            Step::Stays(instance, _) => instance,
            Step::Comes { fresh, .. } => fresh,
        }
    }

    fn discard(&self) {
        if let Step::Comes { fresh, .. } = self {
            fresh.discard();
        }
    }
}
